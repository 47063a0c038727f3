"""A run on one HTML page: what its files say, and what its networks make of query and gallery."""
