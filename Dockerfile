# forebay in a container: no root, nothing written, no shell needed. docs/container.md tells how to run it.
#
#   docker build -t forebay .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges \
#     -p 8080:8080 -e ANTHROPIC_API_KEY -v ./keys.d:/etc/forebay/keys.d:ro forebay

ARG RUST=1.95
ARG DEBIAN=bookworm

FROM rust:${RUST}-${DEBIAN} AS build
WORKDIR /src
COPY . .
# The caches outlive this build, so the program is taken out of them in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin forebay \
    && install -D --mode=0755 target/release/forebay /out/usr/local/bin/forebay \
    && install -D --mode=0644 configs/container.toml /out/etc/forebay/forebay.toml \
    && install -d /out/etc/forebay/keys.d

# The C library and nothing else of it is used; certificates' roots are in the program.
FROM debian:${DEBIAN}-slim
LABEL org.opencontainers.image.title="forebay" \
      org.opencontainers.image.description="The edge router that an engineering org puts in front of its coding agents" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /out/ /
# A number, so that Kubernetes' runAsNonRoot can see that it is not root.
USER 65532:65532
EXPOSE 8080 9091
STOPSIGNAL SIGTERM
# Asks the `[health]` listener of the configuration that is in the image: 127.0.0.1:9091 inside the container.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/usr/local/bin/forebay", "health"]
ENTRYPOINT ["/usr/local/bin/forebay"]
CMD ["serve", "--config", "/etc/forebay/forebay.toml"]
