"""The kinds people write: AcceleratorPool, SpecializedModel and EnergyBudget as pydantic models, their CRDs, quantities and conditions.

In: plain dicts of a custom resource. Out: validated values, CRD documents. No I/O.
"""
