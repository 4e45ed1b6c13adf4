"""The kinds people write as pydantic models, and what is derived from them: CRDs, quantities, conditions.

In: plain dicts of a custom resource. Out: validated values, CRD documents. No I/O.
"""
