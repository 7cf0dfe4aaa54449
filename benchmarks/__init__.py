"""The benchmark stage: the on-device runner, its host driver, the report, recorded results."""
