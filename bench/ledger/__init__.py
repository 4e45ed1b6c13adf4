"""What energy accounting costs: a tick of the ledger and of budgets, for many replicas, in CPU seconds."""
