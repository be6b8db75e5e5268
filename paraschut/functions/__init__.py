"""Functions as jobs: persist, persist_map, BatchExecutor, and how their results are waited for."""
