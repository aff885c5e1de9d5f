"""The only package that imports kopf: settings, indexes, wake-ups and one loop per object."""
