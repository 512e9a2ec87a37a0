"""How many made-up inputs a test of hypothesis tries: the same few in the suite, more where asked for."""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("ZTURBO_TEST_EXAMPLES", "200"))

examples = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
