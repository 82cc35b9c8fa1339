// What people have set on the container app by hand, so that a deployment hands it back: without that, Azure removes it.
param name string

resource app 'Microsoft.App/containerApps@2025-07-01' existing = {
  name: name
}

var ingress = app.properties.configuration.?ingress

@description('Domains of one\'s own, with their certificates')
output customDomains array = ingress.?customDomains ?? []

@description('Addresses that may call, or may not')
output ipSecurityRestrictions array = ingress.?ipSecurityRestrictions ?? []

@description('False: somebody has switched the ingress off, for a restore')
output ingressEnabled bool = ingress != null
