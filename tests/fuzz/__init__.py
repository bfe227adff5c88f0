"""Damaged datasets by the thousand: nothing may crash, hang, or take a good item with it."""
