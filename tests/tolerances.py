"""How far two computations of the same quantity may differ; all tolerances are in this file.

If a test fails, fix the code. Never loosen a tolerance to make it pass.
"""

# Largest absolute difference of logits and losses in nats, on models of a few layers.
EXACT = 0.0  # the same operations on the same numbers
REORDERED = 5e-5  # float32, the same sums in another order: decoding, packing, scanning
FLOAT64 = 1e-11  # the same sums in another order, in float64
BFLOAT16_NLL = 0.15  # mean loss over a batch in bfloat16 against float32

# Gradients of one parameter, relative to the larger of the two.
REORDERED_GRADIENT = 2e-4

# Parity with independent implementations in float32 at the highest matmul precision.
PARITY = 2e-5
PARITY_GRADIENT = 2e-4
# a gradient that is zero on paper, relative to the largest of the model
NOTHING = 1e-6

# Logits of an imported model, against those of its source, over the largest of them if above 1.
EXCHANGE = 1e-5

# FLOPs: ours against XLA's, which also counts normalisations, activations and softmaxes.
XLA_FLOPS = 0.05

# Estimated bytes of a training step against XLA's allocation: a factor in either direction.
MEMORY = 1.5

# A slope by central differences of a float32 loss, relative.
FINITE_DIFFERENCE = 5e-3

KEPT_REPORT = 1e-6  # relative; a report's sums depend on the BLAS library's order
