"""SVHN (Street View House Numbers), format 2: cropped digits in MATLAB files."""
