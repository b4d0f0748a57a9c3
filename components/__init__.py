"""The program's parts. Importing this package loads nothing heavy and creates nothing."""
