"""Entry point: read the stack's settings, build the mesh, export what its operators look at."""

import gc

import pulumi

from components import failures, program, settings

# All that a program declares lives until its process ends: looking for garbage among it takes a third of a large preview, and more the larger it is.
gc.disable()
failures.go_on()

try:
    outputs = program.build(settings.load(*program.configuration()), pulumi.get_stack())
except settings.SettingsError as error:
    raise pulumi.RunError(str(error)) from None

for name, value in outputs.items():
    pulumi.export(name, value)
