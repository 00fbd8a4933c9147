//! The node agent: pod lifecycle, volumes, probes, images, node status and its HTTPS API.
