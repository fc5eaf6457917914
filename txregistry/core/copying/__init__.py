"""A store on its way to another engine: single objects, the order in which they go, and what was deleted meanwhile."""
