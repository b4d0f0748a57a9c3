"""Entry point: read the stack's settings, build the mesh, export what its operators look at."""

import pulumi

from components import program, settings

try:
    outputs = program.build(settings.load(*program.configuration()), pulumi.get_stack())
except settings.SettingsError as error:
    raise pulumi.RunError(str(error)) from None

for name, value in outputs.items():
    pulumi.export(name, value)
