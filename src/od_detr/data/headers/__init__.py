"""Image headers: format, size and orientation of files, read without decoding a pixel."""
