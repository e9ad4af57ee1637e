"""Published datasets as stores: one importer per dataset, and what is common to all of them.

`molspectra.data.datasets.prepare.prepare` makes a store; `registry` knows the importers by name.
"""
