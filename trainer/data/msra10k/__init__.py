"""MSRA10K: pictures with a mask of what stands out."""
