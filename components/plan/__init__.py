"""What follows from the settings: every manifest, file, name, label and script. Pure functions; nothing here imports pulumi (a test sees to it)."""
