"""The datasets, a file each: folders and file names, published sizes, protocols, meaning of cameras and clothes."""
