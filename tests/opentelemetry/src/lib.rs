#![doc = include_str!("../../../src/guide/opentelemetry.md")]
