"""Hypothesis on a busy machine: cases are bounded by their number, never by the clock."""

from hypothesis import HealthCheck, settings

calmly = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
