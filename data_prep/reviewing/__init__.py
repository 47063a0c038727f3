"""The parts of the review page: which photos it shows, how they are drawn, and the page itself."""
