"""What joins the stages: sources, manifests, removals, release, funnel, provenance."""
