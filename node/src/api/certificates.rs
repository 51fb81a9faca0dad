//! The certificates of all nodes' HTTP ports, and whom client certificates let in.

use proto::cluster::v1::{self as pb, admin_client::AdminClient};

use super::{members, request::Edge};

/// Those of this node, or of all members that answer.
pub(super) async fn show(edge: &Edge, own_only: bool) -> pb::ShowCertificatesResponse {
    let own = own(edge);
    if own_only {
        return pb::ShowCertificatesResponse {
            nodes: vec![own],
            unavailable_nodes: Vec::new(),
        };
    }
    let said = members::ask_all(&edge.cluster, async { Ok(vec![own]) }, |_, channel| async move {
        let request = members::request(pb::ShowCertificatesRequest { own_only: true });
        let answer = AdminClient::new(channel).show_certificates(request).await?;
        Ok(answer.into_inner().nodes)
    })
    .await;
    pb::ShowCertificatesResponse {
        unavailable_nodes: said.unavailable(),
        nodes: said.answers.into_iter().flat_map(|(_, nodes)| nodes).collect(),
    }
}

fn own(edge: &Edge) -> pb::NodeTls {
    let node = u32::from(edge.cluster.node());
    let Some(tls) = &edge.tls else {
        return pb::NodeTls {
            node,
            ..pb::NodeTls::default()
        };
    };
    let (config, shown) = (tls.config(), tls.certificate());
    let files = [Some(&config.certificate), Some(&config.key), config.client_ca.as_ref()];
    let [certificate_file, key_file, client_ca_file] =
        files.map(|file| file.map_or_else(String::new, |path| path.display().to_string()));
    pb::NodeTls {
        node,
        certificate: Some(pb::Certificate {
            subject: shown.subject,
            issuer: shown.issuer,
            names: shown.names,
            not_before_unix_ms: shown.from_s.saturating_mul(1000),
            not_after_unix_ms: shown.until_s.saturating_mul(1000),
        }),
        certificate_file,
        key_file,
        client_ca_file,
        operators: config.operators.clone(),
        readers: config.readers.clone(),
    }
}
