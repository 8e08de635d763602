"""The processes that train together: how they start and end, and how they hear of a stop."""
