"""Scripts that run beside Pulumi."""
