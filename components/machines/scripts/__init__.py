"""Scripts of machines: Python runs beside Pulumi, shell runs on a machine."""
