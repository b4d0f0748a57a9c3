"""Entry point: read the stack's settings, build the mesh, export what its operators look at."""

import pulumi

from components import program, settings

try:
    loaded = settings.load(program.configuration())
except settings.SettingsError as error:
    raise pulumi.RunError(str(error)) from None

for name, value in program.build(loaded, pulumi.get_stack()).items():
    pulumi.export(name, value)
