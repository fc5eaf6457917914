"""OpenStack Swift as a storage engine, spoken with over treq."""
