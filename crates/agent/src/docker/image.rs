//! Images: what is not there is fetched, with its progress in words.

use std::{collections::BTreeMap, io};

use bollard::{
    errors::Error as ApiError,
    plugin::{CreateImageInfo, ImageConfig},
    query_parameters::CreateImageOptionsBuilder,
};
use futures_util::StreamExt;

use super::engine::Engine;
use crate::{Error, Progress};

/// The image's own settings; it is fetched first where the engine does not have it.
pub(super) async fn ensure(engine: &Engine, image: &str, progress: &Progress) -> Result<ImageConfig, Error> {
    if let Some(found) = engine.inspect_image(image).await? {
        return Ok(found.config.unwrap_or_default());
    }
    pull(engine, image, progress).await?;
    let found = engine.inspect_image(image).await?;
    let config = found.ok_or_else(|| Error::Refused(format!("image {image} is gone again")))?;
    Ok(config.config.unwrap_or_default())
}

async fn pull(engine: &Engine, image: &str, progress: &Progress) -> Result<(), Error> {
    progress.tell(format!("fetching the image {image}"));
    let options = CreateImageOptionsBuilder::default().from_image(&named(image)).build();
    let mut steps = engine.api().create_image(Some(options), None, None);
    let mut layers = Layers::default();
    while let Some(step) = steps.next().await {
        let step = step.map_err(|error| failed(image, error))?;
        if let Some(error) = step.error_detail.as_ref().and_then(|detail| detail.message.as_deref()) {
            return Err(not_fetched(image, error));
        }
        layers.take(&step);
        progress.tell(layers.sentence(image));
    }
    Ok(())
}

/// The engine's own word is the last one; one that says nothing is away.
fn failed(image: &str, error: ApiError) -> Error {
    match error {
        ApiError::DockerResponseServerError { .. } | ApiError::DockerStreamError { .. } => {
            not_fetched(image, &error.to_string())
        }
        other => Error::Away { what: "fetch the image", source: io::Error::other(other) },
    }
}

fn not_fetched(image: &str, why: &str) -> Error {
    Error::Refused(format!("the image {image} cannot be fetched: {why}"))
}

/// Without a tag the engine would fetch every tag there is.
fn named(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

const MIB: i64 = 1 << 20;

/// How far each layer is.
#[derive(Debug, Default)]
struct Layers(BTreeMap<String, (i64, i64)>);

impl Layers {
    fn take(&mut self, step: &CreateImageInfo) {
        let Some(id) = &step.id else { return };
        let known = self.0.entry(id.clone()).or_default();
        match (&step.progress_detail, step.status.as_deref()) {
            (Some(detail), Some("Downloading")) => {
                *known = (detail.current.unwrap_or(known.0), detail.total.unwrap_or(known.1));
            }
            (_, Some("Download complete" | "Pull complete" | "Already exists")) => known.0 = known.1,
            _ => {}
        }
    }

    fn sentence(&self, image: &str) -> String {
        let (done, all) = self.0.values().fold((0, 0), |sum, layer| (sum.0 + layer.0, sum.1 + layer.1));
        if all == 0 {
            return format!("fetching the image {image}");
        }
        format!("fetching the image {image}: {} of {} MiB", done / MIB, all.div_euclid(MIB).max(1))
    }
}

#[cfg(test)]
mod tests {
    use bollard::plugin::ProgressDetail;

    use super::*;

    #[test]
    fn an_image_without_a_tag_is_its_latest() {
        assert_eq!(named("debian"), "debian:latest");
        assert_eq!(named("127.0.0.1:5000/team/app"), "127.0.0.1:5000/team/app:latest");
        assert_eq!(named("debian:12"), "debian:12");
        assert_eq!(named("app@sha256:00"), "app@sha256:00");
    }

    #[test]
    fn layers_add_up() {
        let step = |id: &str, status: &str, current, total| CreateImageInfo {
            id: Some(id.into()),
            status: Some(status.into()),
            progress_detail: Some(ProgressDetail { current, total }),
            ..CreateImageInfo::default()
        };
        let mut layers = Layers::default();
        assert_eq!(layers.sentence("x"), "fetching the image x");
        layers.take(&step("a", "Downloading", Some(1 << 20), Some(4 << 20)));
        layers.take(&step("b", "Downloading", Some(2 << 20), Some(6 << 20)));
        assert_eq!(layers.sentence("x"), "fetching the image x: 3 of 10 MiB");
        layers.take(&step("a", "Download complete", None, None));
        assert_eq!(layers.sentence("x"), "fetching the image x: 6 of 10 MiB");
    }
}
