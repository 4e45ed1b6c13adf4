"""The kinds people write as pydantic models: AcceleratorPool, SpecializedModel, EnergyBudget; CRDs, quantities, conditions.

In: plain dicts of a custom resource. Out: validated values, CRD documents. No I/O.
"""
