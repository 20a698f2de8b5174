"""The ledger: what accsim says beside what others published or measured, failures included."""
