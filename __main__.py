"""Entry point: read the stack's settings, build the mesh, export what its operators look at."""

import gc

import pulumi

from components import config, continue_on_error, source_positions, stack, waiting
from components.config.problems import SettingsError

# Everything that the program declares lives until the process ends. Garbage collection takes a
# third of the time of a large preview, and finds nothing.
gc.disable()
continue_on_error.install()
source_positions.install()
waiting.install()

try:
    outputs = stack.build(config.load(stack.configuration()), pulumi.get_stack())
except SettingsError as error:
    raise pulumi.RunError(str(error)) from None

for name, value in outputs.items():
    pulumi.export(name, value)
