"""The FaceCaption library: plain functions and classes over images, tables and models. It never imports dagster."""
