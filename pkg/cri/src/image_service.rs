//! Images, as CRI sees them.

use std::time::Duration;

use k8s_cri::v1::{
    AuthConfig, FilesystemUsage, Image, ImageFsInfoRequest, ImageSpec, ImageStatusRequest, ListImagesRequest,
    PodSandboxConfig, PullImageRequest, RemoveImageRequest,
};

use crate::connection::incomplete;
use crate::{CriError, Runtime, images};

const READ: Duration = Duration::from_secs(60);
/// A pull has no useful limit of its own: the runtime gives up on a registry that sends nothing.
const PULL: Duration = Duration::from_secs(4 * 3600);

fn spec(image: &str) -> Option<ImageSpec> {
    Some(ImageSpec { image: image.to_owned(), ..ImageSpec::default() })
}

impl Runtime {
    /// The image with this reference or id, if the runtime has it.
    pub async fn image_status(&self, image: &str) -> Result<Option<Image>, CriError> {
        let request = ImageStatusRequest { image: spec(image), verbose: false };
        Ok(self.limited("ImageStatus", READ, self.image().image_status(request)).await?.image)
    }

    /// The name of an image's topmost layer, which containerd tells and other runtimes may not.
    pub(crate) async fn chain_id(&self, image: &str) -> Result<String, CriError> {
        let request = ImageStatusRequest { image: spec(image), verbose: true };
        let answer = self.limited("ImageStatus", READ, self.image().image_status(request)).await?;
        let missing = || incomplete("ImageStatus");
        answer.info.get("info").and_then(|info| images::chain_id(info)).ok_or_else(missing)
    }

    pub async fn list_images(&self) -> Result<Vec<Image>, CriError> {
        Ok(self.limited("ListImages", READ, self.image().list_images(ListImagesRequest::default())).await?.images)
    }

    /// Pulls an image; gives the reference by which containers are created from it. Dropping the future ends the pull.
    pub async fn pull_image(
        &self,
        image: &str,
        auth: Option<AuthConfig>,
        sandbox_config: Option<PodSandboxConfig>,
    ) -> Result<String, CriError> {
        let request = PullImageRequest { image: spec(image), auth, sandbox_config };
        Ok(self.limited("PullImage", PULL, self.image().pull_image(request)).await?.image_ref)
    }

    pub async fn remove_image(&self, image: &str) -> Result<(), CriError> {
        self.limited("RemoveImage", READ, self.image().remove_image(RemoveImageRequest { image: spec(image) }))
            .await
            .map(drop)
    }

    /// Usage of the filesystems that hold images.
    pub async fn image_filesystems(&self) -> Result<Vec<FilesystemUsage>, CriError> {
        Ok(self
            .limited("ImageFsInfo", READ, self.image().image_fs_info(ImageFsInfoRequest::default()))
            .await?
            .image_filesystems)
    }
}
