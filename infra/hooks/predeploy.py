"""Before the service is deployed: whether it runs already, so that what people set on it by hand is kept."""

from infra.hooks.azd import Azure, Environment, Refused, run, tell_whether_the_app_exists


def predeploy(environment: Environment, azure: Azure) -> None:
    """Raises `Refused` if there is nothing for azd to deploy."""
    if image := environment.get("CONTAINER_IMAGE"):
        raise Refused(
            f"azd provision has deployed {image}, and nothing is left for azd deploy. "
            'To let azd build the image instead: azd env set CONTAINER_IMAGE ""'
        )
    name = environment.get("SERVICE_API_NAME")
    if not name:
        raise Refused("The resources are not known: run azd provision, or azd env refresh where somebody else did.")
    tell_whether_the_app_exists(environment, azure, name)


if __name__ == "__main__":
    run(predeploy)
