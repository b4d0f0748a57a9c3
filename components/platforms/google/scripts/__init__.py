"""Scripts of the platform: Python runs beside Pulumi, shell runs on a machine."""
