//! What holds for the whole process and the whole workspace.

mod collector;
mod config;
mod faults;
mod hostile;
mod http2;
mod openapi;
mod service;
mod shutdown;
mod slow_clients;
mod telemetry;
mod walls;
mod wire;
