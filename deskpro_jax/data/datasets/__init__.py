"""The datasets: layouts of their authors, published sizes, protocols, meaning of cameras and clothes."""
