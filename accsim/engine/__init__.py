"""Schedule → timeline: the closed form, and events between tiles."""
