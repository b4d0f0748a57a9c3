"""Tools of those who develop this project."""
