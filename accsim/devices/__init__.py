"""Devices turn operations into schedules. Siblings that do not know each other."""
