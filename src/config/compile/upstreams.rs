//! `[[upstream]]`: provider presets, base URLs, credentials.

use std::io::ErrorKind;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::table::upstream::secret_fault;
use crate::table::{Credential, Patience, Provider, SecretLine, Upstream};

use super::super::diagnose::{At, Problems, Remedy, looks_secret};
use super::super::file;
use super::super::host::Host;
use super::super::quickstart::ANTHROPIC_URL;
use super::super::reader::{entry, entry_removal, extent};
use super::super::url::{self, BaseUrl};
use super::{Names, answers, beside, egress, quoted, settings, word};

/// A secret's file and a CA bundle are no larger than this, in bytes.
const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;
const CA_FILE_BYTES_MAX: u64 = 4 << 20;

/// Presets that are planned; refused by name, so that nobody looks for a typing error.
const LATER: &[&str] =
    &["bedrock", "vertex", "foundry", "azure", "openai", "openai-compatible", "gemini", "openrouter", "mistral"];

/// How a credential travels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Auth {
    XApiKey,
    Bearer,
    None,
}

/// Takes out the upstreams of providers that are not in this version, and returns their names.
pub(super) fn take_later(problems: &mut Problems, upstreams: &mut Vec<file::Upstream>) -> Vec<String> {
    let mut names = Vec::new();
    upstreams.retain(|written| {
        let Some(text) = written.provider.as_ref().filter(|text| LATER.contains(&text.value.as_str())) else {
            return true;
        };
        let all = extent(problems, written.at);
        problems.forget(all);
        problems.add(
            text.at,
            format!("the provider `{}` is not in this version", text.value),
            "remove this upstream; there is anthropic, anthropic-compatible",
            Remedy::replace(all, ""),
        );
        names.extend(written.name.as_ref().map(|name| name.value.clone()));
        false
    });
    names
}

pub(super) fn compile(problems: &mut Problems, host: &dyn Host, written: &[file::Upstream]) -> Vec<Upstream> {
    if written.is_empty() {
        let section = "[[upstream]]\nname = \"anthropic\"\nprovider = \"anthropic\"\n\
                       credentials = [{ name = \"main\", env = \"ANTHROPIC_API_KEY\" }]";
        let (end, remedy) = (problems.end_of(0), problems.append(0, section));
        problems.add(end, "no [[upstream]]: nowhere to send requests to", "add one", remedy);
    }
    written.iter().map(|upstream| one(problems, host, upstream)).collect()
}

fn one(problems: &mut Problems, host: &dyn Host, written: &file::Upstream) -> Upstream {
    let provider = provider(problems, written);
    let url = base_url(problems, written);
    let name = written.name.as_ref().map_or("", |name| name.value.as_str());
    let ways = [("x-api-key", Auth::XApiKey), ("bearer", Auth::Bearer), ("none", Auth::None)];
    let auth = written.auth.as_ref().and_then(|text| word(problems, "auth", text, &ways)).unwrap_or(Auth::XApiKey);
    let via = egress::via(problems, host, written, &url);
    Upstream {
        guard: egress::guard(written, &url, via.as_ref()),
        via,
        name: name.into(),
        provider,
        tls: url.tls,
        host: url.host.into(),
        port: url.port,
        base_path: url.path,
        host_header: url.host_header,
        credentials: credentials(problems, host, written, auth, name),
        extra_ca: written.ca_file.as_ref().map(|path| roots(problems, host, path)).unwrap_or_default(),
        first_byte: written.first_byte.as_ref().and_then(|text| settings::span(problems, "first_byte", text, "30s")),
        charge: written.charge,
        verdicts: answers::verdicts(problems, &written.verdicts),
    }
}

/// An upstream's own patience has an effect only below the one that holds for all.
pub(super) fn within_patience(
    problems: &mut Problems,
    written: &[file::Upstream],
    compiled: &[Upstream],
    patience: &Patience,
) {
    for (written, upstream) in written.iter().zip(compiled) {
        let too_long = upstream.first_byte.is_some_and(|span| span >= patience.first_byte);
        if let Some(text) = written.first_byte.as_ref().filter(|_| too_long) {
            let remedy = entry_removal(problems, text.at);
            let all = patience.first_byte.as_ms() / 1_000;
            problems.add(
                text.at,
                format!("`first_byte` would have no effect: no request waits for longer than {all} s ([timeouts] first_byte)"),
                "write a shorter one, after which the next target is asked, or remove it",
                remedy,
            );
        }
    }
}

fn provider(problems: &mut Problems, written: &file::Upstream) -> Provider {
    let Some(text) = &written.provider else {
        if written.base_url.is_none() {
            problems.add(
                written.at,
                "[[upstream]] has neither `provider` nor `base_url`",
                "add `provider = \"anthropic\"`",
                written.insert_provider.clone(),
            );
        }
        return Provider::AnthropicCompatible;
    };
    let presets = [Provider::Anthropic, Provider::AnthropicCompatible].map(|preset| (preset.name(), preset));
    word(problems, "provider", text, &presets).unwrap_or(Provider::Anthropic)
}

fn base_url(problems: &mut Problems, written: &file::Upstream) -> BaseUrl {
    let preset = || url::parse(ANTHROPIC_URL).unwrap_or_default();
    let Some(text) = &written.base_url else {
        let needs_own = written.provider.as_ref().is_some_and(|p| p.value == Provider::AnthropicCompatible.name());
        if needs_own {
            problems.add(
                written.at,
                "an upstream of the provider `anthropic-compatible` has no `base_url`",
                "add the service's `base_url`, or write provider = \"anthropic\"",
                Remedy::replace(written.provider.as_ref().map_or(written.at, |p| p.at), "\"anthropic\""),
            );
        }
        return preset();
    };
    let (url, cause) = match url::parse(&text.value) {
        Ok(url) => match url.path.strip_suffix("/messages").unwrap_or(&url.path).strip_suffix("/v1") {
            None => (Some(url), None),
            Some(_) => {
                (url::parse(&without_v1(&text.value)).ok(), Some("ends with `/v1`, which every path has already"))
            }
        },
        Err(fault) => (mend(&text.value), Some(fault)),
    };
    let url = url.unwrap_or_else(preset);
    let plain = !url.tls && !url.is_inside() && written.plaintext.as_ref().is_none_or(|flag| !flag.value);
    let good = BaseUrl { tls: url.tls || plain, ..url.clone() };
    if let Some(fault) = egress::address_fault(&url).filter(|_| cause.is_none()) {
        let good = quoted(ANTHROPIC_URL);
        problems.add(
            text.at,
            format!("`base_url` {fault}"),
            format!("name the service itself, such as {good}"),
            Remedy::replace(text.at, good),
        );
        return url;
    }
    if let Some(cause) = cause.or(plain.then_some("would send the credential over the network without TLS")) {
        let good = good.to_string();
        problems.add(
            text.at,
            format!("`base_url` {cause}"),
            if plain {
                format!("write {}, or add `plaintext = true`", quoted(&good))
            } else {
                format!("write {}", quoted(&good))
            },
            Remedy::replace(text.at, quoted(&good)),
        );
    }
    url
}

fn without_v1(text: &str) -> String {
    let bare = text.trim_end_matches('/');
    let bare = bare.strip_suffix("/messages").unwrap_or(bare);
    bare.strip_suffix("/v1").unwrap_or(bare).to_owned()
}

/// What an ill-formed base URL probably meant.
fn mend(text: &str) -> Option<BaseUrl> {
    let bare = text.trim().split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = bare.split_once("://").unwrap_or(("https", bare));
    let scheme = if scheme.eq_ignore_ascii_case("http") { "http" } else { "https" };
    let rest = rest.rsplit('@').next().unwrap_or_default();
    url::parse(&without_v1(&format!("{scheme}://{rest}"))).ok()
}

fn credentials(
    problems: &mut Problems,
    host: &dyn Host,
    written: &file::Upstream,
    auth: Auth,
    upstream: &str,
) -> Vec<Credential> {
    if let Some(text) = written.auth.as_ref().filter(|_| auth == Auth::None && !written.credentials.is_empty()) {
        problems.add(
            text.at,
            "`auth` is `none`, but there are `credentials`",
            "write \"x-api-key\" or \"bearer\", or remove the credentials",
            Remedy::replace(text.at, "\"x-api-key\""),
        );
    }
    if auth != Auth::None && written.credentials.is_empty() && !written.credentials_told {
        problems.add(
            written.at,
            format!("the upstream `{upstream}` has no `credentials`"),
            "add `credentials`, or `auth = \"none\"` if it wants none",
            written.insert_credentials.clone(),
        );
    }
    let names = Names::of(problems, "credential of this upstream", written.credentials.iter().map(|c| c.name.as_ref()));
    let alone = written.credentials.len() == 1;
    let each = written.credentials.iter().zip(&names.list).enumerate();
    each.filter_map(|(at, (written, name))| {
        let secret = secret(problems, host, written)?;
        let header = if auth == Auth::Bearer { SecretLine::bearer(&secret) } else { SecretLine::x_api_key(&secret) };
        let name: Arc<str> = match (&**name, alone) {
            ("", true) => upstream.into(),
            ("", false) => format!("{upstream}-{}", at + 1).into(),
            (name, _) => name.into(),
        };
        Some(Credential { name, header, limits: answers::limits(problems, &written.limits) })
    })
    .collect()
}

fn secret(problems: &mut Problems, host: &dyn Host, written: &file::Credential) -> Option<Zeroizing<String>> {
    if let Some(value) = &written.value {
        let remedy = match (&written.env, &written.file) {
            (None, None) => Remedy::replace(entry(problems, value.at), "env = \"ANTHROPIC_API_KEY\""),
            _ => entry_removal(problems, value.at),
        };
        problems.add(
            value.at,
            "a credential stands in the file, where it would reach version control and backups",
            "write `env` with the name of a variable, or `file` with a path",
            remedy,
        );
    }
    match (&written.env, &written.file) {
        (Some(_), Some(path)) => {
            let remedy = entry_removal(problems, path.at);
            problems.add(path.at, "a credential has both `env` and `file`", "keep one of the two", remedy);
            None
        }
        (Some(variable), None) => from_variable(problems, host, variable),
        (None, Some(path)) => from_file(problems, host, path),
        (None, None) => None,
    }
}

fn from_variable(problems: &mut Problems, host: &dyn Host, written: &At<String>) -> Option<Zeroizing<String>> {
    let bare = written.value.trim().trim_start_matches('$').trim_matches(['{', '}', '%']);
    let is_name = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let (name, cause) = match () {
        () if looks_secret(bare) => ("ANTHROPIC_API_KEY", Some("holds a secret, and must hold the name of a variable")),
        () if bare != written.value && is_name(bare) => (bare, Some("must hold a variable's name alone")),
        () if is_name(bare) => (bare, None),
        () => ("ANTHROPIC_API_KEY", Some("does not hold the name of a variable")),
    };
    if let Some(cause) = cause {
        let good = quoted(name);
        problems.add(written.at, format!("`env` {cause}"), format!("write {good}"), Remedy::replace(written.at, good));
    }
    let remedy = || Remedy::Variable(name.to_owned());
    let hint = format!("run `export {name}=...` in the environment of forebay, or name another variable");
    match host.var(name).map(Zeroizing::new) {
        None => problems.add(written.at, format!("the variable {name} is not set"), hint, remedy()),
        Some(value) => match secret_fault(value.trim()) {
            None => return Some(Zeroizing::new(value.trim().to_owned())),
            Some(fault) => problems.add(written.at, format!("the value of {name} {fault}"), hint, remedy()),
        },
    }
    None
}

fn from_file(problems: &mut Problems, host: &dyn Host, written: &At<String>) -> Option<Zeroizing<String>> {
    let path = beside(problems, written);
    let fault = match host.read(&path, SECRET_FILE_BYTES_MAX) {
        Err(error) => format!("cannot be read: {}", plain(error.kind())),
        Ok(bytes) => {
            let bytes = Zeroizing::new(bytes);
            match std::str::from_utf8(&bytes).map(str::trim).map(|text| (text, secret_fault(text))) {
                Ok((text, None)) => return Some(Zeroizing::new(text.to_owned())),
                Ok((_, Some(fault))) => fault.to_owned(),
                Err(_) => "holds something other than text".to_owned(),
            }
        }
    };
    let shown = path.display().to_string();
    problems.add(
        written.at,
        format!("the credential's file {shown} {fault}"),
        format!("write the credential to {shown}, readable for forebay only"),
        Remedy::File(path),
    );
    None
}

fn roots(problems: &mut Problems, host: &dyn Host, written: &At<String>) -> Vec<Vec<u8>> {
    let path = beside(problems, written);
    let read = host.read(&path, CA_FILE_BYTES_MAX).map_err(|error| format!("cannot be read: {}", plain(error.kind())));
    let parsed = read.and_then(|pem| {
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match roots {
            Ok(roots) if !roots.is_empty() => Ok(roots.into_iter().map(|root| root.to_vec()).collect()),
            Ok(_) => Err("holds no PEM certificate".to_owned()),
            Err(_) => Err("holds a broken PEM certificate".to_owned()),
        }
    });
    parsed.unwrap_or_else(|fault| {
        let shown = path.display().to_string();
        problems.add(
            written.at,
            format!("the `ca_file` {shown} {fault}"),
            format!("put the CA's certificate into {shown}, as PEM, or remove `ca_file`"),
            Remedy::File(path),
        );
        Vec::new()
    })
}

/// Stable words for the common reasons.
pub(crate) fn plain(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "there is no such file",
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::FileTooLarge => "it is too large",
        ErrorKind::IsADirectory => "it is a directory",
        _ => "reading failed",
    }
}
