"""Published methods, one file each: module, streams, recipe, names of published weights."""
