"""Programs of other projects that do the same work, in environments of their own."""
