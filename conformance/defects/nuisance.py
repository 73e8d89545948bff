"""Changes that must not matter: they reorder sums or pick another kernel for the same mathematics.

What they move the output by is the noise floor that limits stand on. Each turns fields of the case's preset to their
other value.
"""

from conformance.defects.variants import with_other

cfg_batch = with_other("cfg-batch", "cfg_batch")
timestep_shape = with_other("timestep-shape", "timestep_shape")
token_memory = with_other("token-memory", "token_memory")
text_mask = with_other("text-mask", "text_mask")
all_at_once = with_other("all-at-once", "cfg_batch", "timestep_shape", "token_memory", "text_mask")

NUISANCES = ("cfg_batch", "timestep_shape", "token_memory", "text_mask", "all_at_once")
