"""Scripts of verification: Python runs beside Pulumi, shell on machines and in pods."""
