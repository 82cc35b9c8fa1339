// Tells when the resource group's costs of a month near the budget. It stops nothing.
param name string
param amount int
param email string

module budget 'br/public:avm/res/consumption/budget/rg-scope:0.1.0' = {
  name: 'monthly-budget'
  params: {
    name: name
    amount: amount
    contactEmails: [email]
    thresholds: [50, 90, 100]
    enableTelemetry: false
  }
}
