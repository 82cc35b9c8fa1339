"""Where identity mappings live, behind one interface (`storage.mapping.MappingStore`)."""
