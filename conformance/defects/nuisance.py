"""Changes that must not matter: they reorder sums or pick another kernel for the same mathematics.

What they move the output by is the noise floor that limits stand on.
"""

from conformance.defects.variants import with_numerics

cfg_sequential = with_numerics("cfg-sequential", cfg_batch="sequential")
timestep_per_token = with_numerics("timestep-per-token", timestep_shape="token")
token_copy = with_numerics("token-copy", token_memory="copy")
text_unmasked = with_numerics("text-unmasked", text_mask="none")
all_at_once = with_numerics(
    "all-at-once", cfg_batch="sequential", timestep_shape="token", token_memory="copy", text_mask="none"
)

NUISANCES = ("cfg_sequential", "timestep_per_token", "token_copy", "text_unmasked", "all_at_once")
